// A slider over a range of many powers: equal ways are equal factors. A mark shows what is here.

interface Props {
  label: string;
  value: number;
  least: number;
  most: number;
  here: number;
  words: (value: number) => string;
  onChange: (value: number) => void;
}

const STEPS = 200;

export function Slider({ label, value, least, most, here, words, onChange }: Props) {
  const scale = Math.log(most / least);
  const place = (amount: number) => Math.min(Math.max(Math.log(Math.max(amount, least) / least) / scale, 0), 1);
  return (
    <label class="slider">
      <span class="row">
        {label} <span class="value">{words(value)}</span>
      </span>
      <input
        type="range"
        min="0"
        max={STEPS}
        step="1"
        value={Math.round(place(value) * STEPS)}
        aria-valuetext={words(value)}
        onInput={(event) => onChange(least * Math.exp((Number(event.currentTarget.value) / STEPS) * scale))}
      />
      <span class="mark" aria-hidden="true">
        <i style={{ left: `${place(here) * 100}%` }} />
      </span>
    </label>
  );
}
