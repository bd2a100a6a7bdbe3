"""Administration: all routes of the administrator on the wallet surface."""
