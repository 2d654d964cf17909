"""What chance alone explains: of counts, of distances, of windows that scatter more than independent rows do."""
