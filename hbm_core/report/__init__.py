"""What leaves the app: stand-alone scripts and exports."""
