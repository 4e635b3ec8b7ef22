// SPDX-License-Identifier: GPL-2.0-only

//! Pictures: binary PPM (`P6`, 8 bits a sample), which costs next to nothing to read and write, so that the work is that on
//! the pixels.

use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder, ImageFormat, ImageResult, Rgb, RgbImage};

/// Of the Gaussian, in pixels: as wide as a 5x5 filter.
const SIGMA: f32 = 0.8;
/// Laplace: what differs from its neighbours.
const EDGES: [f32; 9] = [-1.0, -1.0, -1.0, -1.0, 8.0, -1.0, -1.0, -1.0, -1.0];
/// Resizing makes of so many rows and columns...
const FROM: u32 = 4;
/// ...so many.
const TO: u32 = 3;
const GAMMA: f32 = 2.2;
/// The tone of old photographs, as a matrix over linear light.
const SEPIA: [[f32; 3]; 3] = [
    [0.393, 0.769, 0.189],
    [0.349, 0.686, 0.168],
    [0.272, 0.534, 0.131],
];

/// Work on a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Gaussian blur.
    Blur,
    /// Edge detection.
    Edge,
    /// To three quarters of the width and height, with cubic interpolation.
    Resize,
    /// Gamma correction, brighter.
    Gamma,
    /// Sepia tone, in linear light.
    Sepia,
}

/// A picture of about `bytes` bytes, always the same one: slopes, rings and noise.
pub fn picture(bytes: usize) -> Vec<u8> {
    // As wide as four thirds of the height.
    let height = ((bytes as f64 / 4.0).sqrt() as u32).max(1);
    let width = height * 4 / 3;
    let mut noise = 1u32;
    let image = RgbImage::from_fn(width, height, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (noise >> 28) as u8;
        let (dx, dy) = (x.abs_diff(width / 2), y.abs_diff(height / 2));
        let ring = if (dx * dx + dy * dy) / 1024 % 2 == 0 {
            160
        } else {
            40
        };
        let slope = |at: u32, of: u32| (at * 200 / of) as u8;
        Rgb([slope(x, width), slope(y, height), ring].map(|sample: u8| sample + grain))
    });
    encode(&image).expect("memory takes what is written")
}

impl Filter {
    /// Does the work on an encoded picture, and encodes the result. Fails if it is no picture.
    pub fn apply(self, input: &[u8]) -> ImageResult<Vec<u8>> {
        let image = image::load_from_memory_with_format(input, ImageFormat::Pnm)?.into_rgb8();
        encode(&match self {
            Self::Blur => imageops::blur(&image, SIGMA),
            Self::Edge => imageops::filter3x3(&image, &EDGES),
            Self::Resize => {
                let part = |length: u32| (length * TO / FROM).max(1);
                let (width, height) = (part(image.width()), part(image.height()));
                imageops::resize(&image, width, height, FilterType::CatmullRom)
            }
            Self::Gamma => each(image, |pixel| {
                pixel.map(|sample| to_sample((f32::from(sample) / 255.0).powf(1.0 / GAMMA)))
            }),
            Self::Sepia => each(image, sepia),
        })
    }
}

fn each(mut image: RgbImage, change: impl Fn([u8; 3]) -> [u8; 3]) -> RgbImage {
    for pixel in image.pixels_mut() {
        pixel.0 = change(pixel.0);
    }
    image
}

fn sepia(pixel: [u8; 3]) -> [u8; 3] {
    let light = pixel.map(|sample| (f32::from(sample) / 255.0).powf(GAMMA));
    SEPIA.map(|row| {
        let sum: f32 = row
            .iter()
            .zip(light)
            .map(|(part, light)| part * light)
            .sum();
        to_sample(sum.min(1.0).powf(1.0 / GAMMA))
    })
}

fn to_sample(value: f32) -> u8 {
    (value * 255.0).round() as u8
}

fn encode(image: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(image.as_raw().len() + 32);
    PnmEncoder::new(&mut bytes)
        .with_subtype(PnmSubtype::Pixmap(SampleEncoding::Binary))
        .write_image(
            image.as_raw(),
            image.width(),
            image.height(),
            ExtendedColorType::Rgb8,
        )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: &[u8]) -> (u32, u32) {
        let image = image::load_from_memory_with_format(bytes, ImageFormat::Pnm);
        let image = image.expect("a stage gives a picture");
        (image.width(), image.height())
    }

    #[test]
    fn a_picture_is_as_long_as_asked_for() {
        for bytes in [256 << 10, 1 << 20] {
            let made = picture(bytes).len();
            assert!(made.abs_diff(bytes) < bytes / 50, "{made} for {bytes}");
        }
    }

    #[test]
    fn each_stage_changes_the_picture_and_only_resize_its_size() {
        let input = picture(30_000);
        let (width, height) = size(&input);
        for filter in [
            Filter::Blur,
            Filter::Edge,
            Filter::Resize,
            Filter::Gamma,
            Filter::Sepia,
        ] {
            let output = filter.apply(&input).expect("it is a picture");
            let expected = match filter {
                Filter::Resize => (width * 3 / 4, height * 3 / 4),
                _ => (width, height),
            };
            assert_eq!(size(&output), expected, "{filter:?}");
            assert_ne!(output, input, "{filter:?}");
        }
    }

    #[test]
    fn grey_becomes_brown() {
        let [red, green, blue] = sepia([128; 3]);
        assert!(red > green && green > blue);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(Filter::Blur.apply(b"int main(void);").is_err());
    }
}
