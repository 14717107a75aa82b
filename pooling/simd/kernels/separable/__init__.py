"""Large windows: reduced along one axis after the other, by van Herk/Gil-Werman where that is cheaper."""
