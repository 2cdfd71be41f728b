//! The rules of Parlor: who may do what, and what follows from it; and the ports it needs.
