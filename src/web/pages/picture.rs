//! A QR code as an SVG picture inside of the page: nothing is loaded, and no style is needed.

use maud::{Markup, html};
use qrcode::{Color, EcLevel, QrCode};
use std::fmt::Write as _;

/// The white edge that readers need (ISO/IEC 18004, 4 modules).
const EDGE: usize = 4;

/// `None`: the text is too long for a picture that a telephone reads.
pub(super) fn qr_code(text: &str, what: &str) -> Option<Markup> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let width = code.width();
    let size = width + 2 * EDGE;
    let mut dark = String::new();
    for (place, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let (x, y) = (place % width + EDGE, place / width + EDGE);
            // Writing to a String does not fail.
            let _written = write!(dark, "M{x} {y}h1v1h-1z");
        }
    }
    Some(html! {
        svg .qr xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {size} {size}")) role="img" aria-label=(what)
            shape-rendering="crispEdges" {
            rect width=(size) height=(size) fill="#fff" {}
            path d=(dark) fill="#000" {}
        }
    })
}
