"""What every copy repository broker is made of: the store format, its endpoint, and the object stores it lies in."""
