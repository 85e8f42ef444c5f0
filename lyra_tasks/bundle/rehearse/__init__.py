"""The rehearsal of a reception: on a throwaway engine like Proxima's, with nothing but what the bundle says to do."""
