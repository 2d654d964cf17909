"""The shell: everything that talks to a broker, awaits, sends, counts or logs."""
