"""Why an engine is slow, and where its accuracy was lost: layer by layer. Without torch."""
