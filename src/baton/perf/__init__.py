"""Pure arithmetic: what a rank must hold, how long its steps take, and what queues make of them."""
