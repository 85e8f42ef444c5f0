"""Known vulnerabilities of the packages in images, from a database that the user names, without network."""
