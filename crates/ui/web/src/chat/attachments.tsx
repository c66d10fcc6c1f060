// Pictures and sounds of a message.

import type { Attachment } from "../lib/conversations";
import { Icon } from "../parts/icons";

const KINDS = /^(image\/(jpeg|png|gif|bmp|webp)|audio\/[\w.-]+)$/;

export function Attachments({ files, onRemove }: { files: Attachment[]; onRemove?: (index: number) => void }) {
  if (files.length === 0) return null;
  return (
    <ul class="attachments">
      {files.map((file, index) => (
        <li key={`${file.name}-${index}`}>
          {KINDS.test(file.type) && file.type.startsWith("image/") && <img alt={file.name} src={`data:${file.type};base64,${file.data}`} />}
          {KINDS.test(file.type) && file.type.startsWith("audio/") && (
            <audio controls aria-label={file.name} src={`data:${file.type};base64,${file.data}`} />
          )}
          {onRemove && (
            <button type="button" class="quiet icon-only" aria-label={`Remove ${file.name}`} onClick={() => onRemove(index)}>
              <Icon name="close" />
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
