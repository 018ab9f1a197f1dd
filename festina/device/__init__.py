"""One device's sensors and actuators behind one protocol."""
