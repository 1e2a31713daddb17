ln -s ../../../../../../../etc/hostname up
