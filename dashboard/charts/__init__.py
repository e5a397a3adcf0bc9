"""Every Altair chart of the project: plain functions from arrays to charts, without a page around them."""
