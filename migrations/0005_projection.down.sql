DROP TABLE annals.parked;
DROP TABLE annals.projection;
