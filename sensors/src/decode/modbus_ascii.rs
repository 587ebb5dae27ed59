//! Modbus ASCII: the frames of a serial line in hexadecimal digits (Modbus over Serial Line V1.02, section 2.5.2).
//!
//! Gives and takes unit, function and data, without the check; what they mean is [`super::modbus`]'s. It does not know lines
//! or time: a frame begins with a colon and ends with a line break, however long its characters take.

/// Characters of the longest frame: colon, 255 bytes with the check, CR and LF.
pub const LONGEST: usize = 513;

/// A frame of unit, function and data, ready for the line.
pub fn write(frame: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 0x0F)];
    let mut characters = vec![b':'];
    for byte in frame.iter().chain([&lrc(frame)]) {
        characters.extend([digit(byte >> 4), digit(*byte)]);
    }
    characters.extend(b"\r\n");
    characters
}

/// The longitudinal redundancy check: what makes the sum of all bytes zero.
fn lrc(frame: &[u8]) -> u8 {
    frame.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// Takes the characters of a line one by one and gives the frames in them.
#[derive(Debug, Default)]
pub struct Reader {
    /// Behind a colon; `None` before it.
    characters: Option<Vec<u8>>,
}

impl Reader {
    /// The next character; where it ends a frame, unit, function and data, or of a damaged one as much as could be read.
    pub fn take(&mut self, character: u8) -> Option<Result<Vec<u8>, Vec<u8>>> {
        match (character, &mut self.characters) {
            // A colon stands nowhere else: what came before it lost its end.
            (b':', _) => self.characters = Some(Vec::new()),
            (b'\r' | b'\n', Some(_)) => return self.characters.take().map(|characters| read(&characters)),
            (_, Some(characters)) if characters.len() < LONGEST => characters.push(character),
            _ => self.characters = None,
        }
        None
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.characters.is_some()
    }

    /// What has begun is nobody's any more.
    pub fn clear(&mut self) {
        self.characters = None;
    }
}

fn read(characters: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let digit = |character: u8| char::from(character).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let mut bytes: Vec<u8> = characters.chunks(2).map_while(byte).collect();
    let is_whole = bytes.len() * 2 == characters.len() && bytes.len() >= 3;
    match bytes.pop() {
        Some(check) if is_whole && check == lrc(&bytes) => Ok(bytes),
        _ => Err(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &[u8]) -> Vec<Result<Vec<u8>, Vec<u8>>> {
        let mut reader = Reader::default();
        text.iter().filter_map(|character| reader.take(*character)).collect()
    }

    #[test]
    fn frames_are_written_as_the_standard_has_them_and_read_back() {
        // The request of the standard's section on the LRC: unit 1, function 3, register 107, three of them.
        let request = [0x01, 0x03, 0x00, 0x6B, 0x00, 0x03];
        assert_eq!(write(&request), b":0103006B00038E\r\n");
        assert_eq!(frames(b":0103006B00038E\r\n"), [Ok(request.to_vec())]);
        for length in [2, 3, 100, 254] {
            let frame: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            assert!(write(&frame).len() <= LONGEST);
            assert_eq!(frames(&write(&frame)), [Ok(frame)]);
        }
    }

    #[test]
    fn what_is_damaged_is_no_frame_and_hides_none_behind_it() {
        let sound = Ok(vec![1, 3, 0, 0x6B, 0, 3]);
        for (text, before) in [
            (&b":0103006B00038E\r\n"[..], vec![]),
            (b"\r\n\x00noise:0103006B00038E\n", vec![]),
            (b":0103006b00038e\r", vec![]),
            // Cut short, then anew.
            (b":010300:0103006B00038E\r\n", vec![]),
            (b":0103006B00038F\r\n:0103006B00038E\r\n", vec![Err(vec![1, 3, 0, 0x6B, 0, 3])]),
            (b":0103006B00038\r\n:0103006B00038E\r\n", vec![Err(vec![1, 3, 0, 0x6B, 0])]),
            (b":01 3006B00038E\r\n:0103006B00038E\r\n", vec![Err(vec![])]),
            (b":\r\n:0103006B00038E\r\n", vec![Err(vec![])]),
            (b":FF01\r\n:0103006B00038E\r\n", vec![Err(vec![0xFF])]),
        ] {
            let wanted: Vec<_> = before.into_iter().chain([sound.clone()]).collect();
            assert_eq!(frames(text), wanted, "{}", text.escape_ascii());
        }
        let endless = [&b":"[..], &b"01".repeat(LONGEST), b"\r\n:0103006B00038E\r\n"].concat();
        assert_eq!(frames(&endless), [sound]);
    }
}
