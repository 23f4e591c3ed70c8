//! Makes `flate2` use zlib-ng in a test run that names this package beside the program's (see `Cargo.toml` here), so
//! that the own inflate is compared with it.

#[cfg(test)]
mod tests {
    use flate2::Decompress;

    #[test]
    fn flate2_is_zlib_ng() {
        // Only the backends in C have a wrapped stream, and zlib-ng is the one that is chosen here.
        let text = format!("{:?}", Decompress::new(false));
        assert!(text.contains("StreamWrapper"), "flate2 has another backend: {text}");
    }
}
