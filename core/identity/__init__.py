"""Who somebody is: tokens, sign-in codes, passwords, passkeys."""
