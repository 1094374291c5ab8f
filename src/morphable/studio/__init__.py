"""The studio: a local web page on which a model of any family is shaped, edited and saved."""
