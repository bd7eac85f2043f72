import { isUtf8 } from 'node:buffer';

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The text of a file name in a 2.x store. That server took the UTF-8 bytes of a name for Latin-1 and encoded
 * them as UTF-8 once more; this undoes it. A name that was not treated so, because somebody put it there by
 * hand, is taken as it is. Undefined for bytes that are no UTF-8. Source: legacy.md.
 */
export function unmangledName(bytes: Buffer): string | undefined {
  if (!isUtf8(bytes)) return undefined;
  const text = strictUtf8.decode(bytes);
  let ascii = true;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit > 0xff) return text;
    if (unit > 0x7f) ascii = false;
  }
  if (ascii) return text;
  const inner = Buffer.from(text, 'latin1');
  return isUtf8(inner) ? strictUtf8.decode(inner) : text;
}
