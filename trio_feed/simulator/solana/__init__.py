"""A Solana RPC node with the transactions of Spin Pet."""
