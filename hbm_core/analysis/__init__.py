"""Tables from data and posteriors: what every view draws and every test checks."""
