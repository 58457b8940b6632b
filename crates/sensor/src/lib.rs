//! What every sensor does, over the machine trait.
