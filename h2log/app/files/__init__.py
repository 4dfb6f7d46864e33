"""What a folder of files is served with: from the disk to the representations of a file."""
