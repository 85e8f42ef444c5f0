"""`bundle.rehearse`: follow the page of a bundle on a throwaway engine; imports the rest but `promote`."""
