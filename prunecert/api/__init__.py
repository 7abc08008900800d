"""What `import prunecert` offers to programs and notebooks; the names are reached from `prunecert` itself."""
