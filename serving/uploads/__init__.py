"""Files that come in pieces, over as many connections as it takes, and are kept until somebody has used them."""
