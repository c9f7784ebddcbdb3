"""What a run needs beside the model: hooks, optimizer constructors, processes."""
