"""What a search leaves for the next one: the file of a tree, and the folder that holds them."""
