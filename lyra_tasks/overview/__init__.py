"""Looking at the whole: what is built, tested and promoted, what runs, what was done."""
