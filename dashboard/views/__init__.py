"""The pages, scripts that Home.py routes to: each draws one page from the URL's state and keeps nothing."""
