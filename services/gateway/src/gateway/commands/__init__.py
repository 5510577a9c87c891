"""What the commands of `winnow` do, a file for each few of them; gateway.cli has their flags."""
