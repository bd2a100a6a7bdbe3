"""How the service is put on machines: what the image and the compose file are made and rolled with."""
