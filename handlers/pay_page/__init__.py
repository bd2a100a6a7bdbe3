"""The payment page: a QR code or link paid in a browser, without a script."""
