"""A whole board in qemu: Debian, systemd, Mosquitto and the package of the daemon."""
