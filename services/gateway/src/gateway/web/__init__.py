"""The page that people look at: templates, what they are given (views), and how they are drawn (render, curve)."""
