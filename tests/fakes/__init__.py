"""Stand-ins for what a unit test has no room for; they speak the real wire."""
