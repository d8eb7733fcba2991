"""Web page on which a click in one frame shows where the patch is in another."""
