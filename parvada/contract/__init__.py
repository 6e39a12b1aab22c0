"""The HTTP API as data: what each call takes and gives, and the OpenAPI document and the page that are made of it."""
