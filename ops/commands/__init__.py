"""The subcommands of `tallystick`, one file each, imported only when they are run."""
