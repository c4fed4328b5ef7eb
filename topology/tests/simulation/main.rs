fn main() {}
#[test]
fn warm() {}
