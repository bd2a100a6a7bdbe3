"""The messages of gRPC, made by `make proto` from docs/proto: nobody edits them, and a test makes them again."""
