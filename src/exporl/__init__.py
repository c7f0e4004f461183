"""exporl: EXPO made real."""
