"""The documentation as files for any web server: the pages of docs/, the reference of the API, a Postman collection."""
