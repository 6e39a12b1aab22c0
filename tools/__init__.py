"""What makes files of this repository from other files of it. No part of the wheel."""
