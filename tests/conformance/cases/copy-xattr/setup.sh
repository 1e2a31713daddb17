setfattr -n user.colour -v blue x
