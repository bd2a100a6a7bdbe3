"""Operations: the command line, the embedded servers, the supervisor of the processes."""
