"""The live side: connections to exchanges, repair of what is missing, candles out."""
