// Files that go with a message: pictures and sounds, of kinds that the server reads.

import { newId, type Attachment } from "../lib/conversations";

const PICTURES = ["image/jpeg", "image/png", "image/gif", "image/bmp", "image/webp"];
const SOUNDS = ["audio/wav", "audio/x-wav", "audio/wave", "audio/mpeg", "audio/mp3", "audio/flac", "audio/x-flac"];
const MOST_BYTES = 64 << 20;

export interface Senses {
  vision: boolean;
  audio: boolean;
}

export function accepted({ vision, audio }: Senses): string {
  return [...(vision ? PICTURES : []), ...(audio ? SOUNDS : [])].join(",");
}

/** Why a file cannot go with a message to a model with these senses; nothing where it can. */
export function refusal(file: { type: string; size: number }, model: string, senses: Senses): string | null {
  const kind = file.type.split("/")[0];
  if (kind === "image" && !senses.vision) return `${model} does not take pictures.`;
  if (kind === "audio" && !senses.audio) return `${model} does not take sounds.`;
  if (!PICTURES.includes(file.type) && !SOUNDS.includes(file.type)) {
    return "Only pictures (JPEG, PNG, GIF, BMP, WebP) and sounds (WAV, MP3, FLAC) can be attached.";
  }
  return file.size > MOST_BYTES ? "This file is larger than 64 MiB." : null;
}

export async function read(file: File): Promise<Attachment> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return { name: file.name || newId(), type: file.type, data: btoa(text) };
}
